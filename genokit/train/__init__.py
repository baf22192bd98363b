"""LeNet on MNIST with MXNet or PyTorch: train it here or as a job, plot the training, save and use the model.

>>> from genokit import train
>>> train.Parameters(epochs=3).seed
1
"""

from genokit.lazy import attach as _attach

# On first use, because MXNet's jobs need no widgets.
__getattr__, __dir__, __all__ = _attach(__name__)
