"""Programs that run alone inside the sandbox: standard library and machine-learning packages, never app.* or Celery.

Mounted there as the package `sandbox`; each program is `run(request, inputs, output) -> result`. What is the model's
fault is raised as `Refused` and becomes the result's `refused`; any other error ends the process and is judged outside.
"""
