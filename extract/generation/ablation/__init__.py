"""Ablation decoding: the prompts decoded together, both passes of a step, the answers, and the loop over them."""
