"""The papers' equations in plain float64 NumPy, for the library to be tested by."""
