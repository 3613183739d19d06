"""Commands beside Lightning's stages: a module each, with a function of the same name. They need no trainer."""
