"""What runs beside the equipment: shield, drivers, runtime, journal; never torch, Ray or a learner."""
