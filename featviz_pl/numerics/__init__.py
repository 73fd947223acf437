"""Plain tensor maths: colour, Fourier, resampling, stateless random numbers. Knows nothing of the rooms above it."""
