"""What happens to sound between a mouth and a file: noise, rooms, codecs, microphones, loudspeakers.

Functions of samples (n,) float32 at a rate in Hz, used both by training's augmentation and by
`voxport bench conditions`. Every chance comes from a generator that the caller gives; `draws` keeps the two
users' streams of random numbers apart, so that no test repeats a draw of training. Nothing here imports torch.
"""
