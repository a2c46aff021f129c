"""From raw histopathology patches to a model that can be believed and handed over."""

__version__ = "0.1.0"
