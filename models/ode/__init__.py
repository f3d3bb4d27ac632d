"""Continuous flows: dx/dt = f(t, x) solved with adaptive Runge-Kutta steps, each row its own."""
