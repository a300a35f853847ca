"""Whether this machine can run the pipeline, and what a run of a profile will cost.

    from pipeline.health.costs import amounts
    findings = examine("room", lambda: amounts(config, layout))

A check is a function that yields findings. Nothing here writes a file, and a check that breaks,
because a package is missing or a file is damaged, becomes a finding itself: a doctor is called when
something does not work. So modules here import only the standard library at their top.
"""
