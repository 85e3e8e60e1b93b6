"""Neural networks in NumPy alone: every forward and every backward pass written out, to be read.

Read in this order: layer.py, dense.py, activations.py, losses.py, optimizers.py; then convolution.py, pooling.py and
regularisers.py. `python -m dlzoo.scratch.train` trains what they make.
"""
