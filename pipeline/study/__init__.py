"""Studies: of coefficient learning, of what it rests on, and of what methods cost.

`traces` and `measuring` learn and measure; a module for each study makes figures of it; `pages*`
and `figures*` show these. docs/learning.md and docs/studies.md are the pages.
"""
