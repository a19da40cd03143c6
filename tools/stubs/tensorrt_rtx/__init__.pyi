# TensorRT for RTX has TensorRT's interface.

from tensorrt import *
from tensorrt import __version__ as __version__
