-- Gives the lease of the tenure with this token (?) back.
UPDATE {group}_lease SET until = '1970-01-02', beat = beat + 1 WHERE id = 1 AND token = ?
