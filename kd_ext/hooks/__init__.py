"""Hooks; none yet: what distillation needs runs without one."""
