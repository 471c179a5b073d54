"""Sound: decoding, resampling, preparation and voice activity."""
