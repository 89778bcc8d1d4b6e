"""The stream of Wikimedia edits: from the events of ``recentchange`` to hours, risks, trends and days.

Belongs here: everything that knows what an edit is, as pure functions. Does not belong here: reading it back for people
(``readers/edits``).
"""
