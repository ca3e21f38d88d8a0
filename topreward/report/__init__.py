"""Reports: curves and tables where people look at them."""
