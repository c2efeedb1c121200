"""The tools that measure the product, and the apps it is measured against."""
