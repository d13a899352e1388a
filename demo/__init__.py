"""A self-contained demonstration: procedural pictures with and without local defects, and what is trained on them."""
