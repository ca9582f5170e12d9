"""Training a ControlNet: noise and loss, a locked U-Net, the loop, and the file that comes out of it."""
