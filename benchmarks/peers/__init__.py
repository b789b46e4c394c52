"""The alternatives that music-assets is compared with, tuned as the documentation of their libraries advises."""
