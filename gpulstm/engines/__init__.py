"""Who computes a recurrent layer: the reference in array code, and engines that do the same faster."""
