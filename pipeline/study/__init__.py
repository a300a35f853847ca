"""Studies of coefficient learning: schedules against time, and objectives against each other.

`traces` and `measuring` learn and measure, `schedules` and `objectives` make figures of it, `pages`
and `figures` show these. docs/learning.md is the page.
"""
