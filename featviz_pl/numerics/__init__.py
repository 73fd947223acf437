"""Plain tensor maths: color, Fourier, resampling, stateless random numbers. Knows nothing of the rooms above it."""
