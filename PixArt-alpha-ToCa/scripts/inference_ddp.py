"""Sample a picture for every line of a text file, on several GPUs; the flags are those of inference.py.

    torchrun --nproc_per_node=6 scripts/inference_ddp.py --txt_file COCO_caption_prompts_30k.txt --bs 100 --preset toca3-r70 --npz
    torchrun --nproc_per_node=2 scripts/inference_ddp.py --device cpu --txt_file asset/samples.txt

No picture depends on the number of processes. The same command again, with more or fewer of them, goes on where a killed run stopped.
"""

from pixart.runs import main

if __name__ == "__main__":
    main(__doc__)
