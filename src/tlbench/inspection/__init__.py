"""A look at a data set before anything is trained: what it holds, and what is wrong with it."""
