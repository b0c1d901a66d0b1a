"""The pocket college: a small Gemma-4-shaped mixture of experts, trained from nothing, and the study of its masks.

Not part of the installed packages: training needs torch (`pocket/requirements.txt`), serving and studying do not.
"""
