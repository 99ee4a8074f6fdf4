# Text to image: a video of one frame.
_base_ = "sample.py"

resolution = "720p"
num_frames = 1
