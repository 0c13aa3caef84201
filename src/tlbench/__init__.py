"""tlbench: transfer-learning image classification from YAML."""

__version__ = "0.1.0"
