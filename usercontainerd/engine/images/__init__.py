"""The images that are here: names, indexes, layers, and what is told of them."""
