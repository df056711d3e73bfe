"""The calibrate stage: the ramp, temperature and method chosen for one model by measurement, without training."""
