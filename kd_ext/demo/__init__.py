"""The quickstart: three trainings, one table, one picture."""
