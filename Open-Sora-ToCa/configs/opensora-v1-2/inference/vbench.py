# The videos that VBench rates, in its naming; eval/vbench/launch.sh gives the prompts and the folder.
_base_ = "sample.py"

resolution = "480p"
num_sample = 5
prompt_as_path = True
