"""The experiments, one in each file; ``sphemb.configs`` wherever they are installed."""
