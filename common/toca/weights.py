import torch
from safetensors.torch import load_file
def load_state_dict(p): return load_file(p)
def load_into(m,s,src): m.load_state_dict(s)
