"""The processes of the loan predictor; each subpackage is one of them."""
