"""The experiments: one module each; `common` has what they share.

``configs`` at the root of a checkout is a symbolic link to this folder.
"""
