"""Who judges: frozen networks, read layer by layer."""

from featviz_pl.networks.embedded import EmbeddedNetwork
from featviz_pl.networks.frozen import FrozenNetwork
from featviz_pl.networks.layers import LayerInfo
from featviz_pl.networks.receptive_field import receptive_fields
from featviz_pl.networks.redirect import redirected_relu
from featviz_pl.networks.relax import relaxed_max_pool
from featviz_pl.networks.shadow import Shadow
from featviz_pl.networks.zoo import as_network, load_network, network_names

__all__ = [
    "EmbeddedNetwork",
    "FrozenNetwork",
    "LayerInfo",
    "Shadow",
    "as_network",
    "load_network",
    "network_names",
    "receptive_fields",
    "redirected_relu",
    "relaxed_max_pool",
]
