"""Who judges: frozen networks, read layer by layer."""

from featviz_pl.networks.embedded import EmbeddedNetwork
from featviz_pl.networks.frozen import FrozenNetwork
from featviz_pl.networks.loading import as_network, load_network, network_names
from featviz_pl.networks.probing import LayerInfo
from featviz_pl.networks.reader import ActivationReader
from featviz_pl.networks.receptive_field import receptive_fields
from featviz_pl.networks.redirected_relu import redirected_relu
from featviz_pl.networks.relaxed_max_pool import relaxed_max_pool

__all__ = [
    "ActivationReader",
    "EmbeddedNetwork",
    "FrozenNetwork",
    "LayerInfo",
    "as_network",
    "load_network",
    "network_names",
    "receptive_fields",
    "redirected_relu",
    "relaxed_max_pool",
]
