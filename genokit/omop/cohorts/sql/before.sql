-- Persons of each cohort with a record of a concept in the days before entry. Runs on this machine, over two tables of
-- this program: first (each person's day of entry) and record.
select f.cohort, r.domain as characteristic, r.concept_id, count(distinct r.person_id) as persons
from record as r
join first as f
    on f.person_id = r.person_id and r.start_date between cast(f.day as date) - $days and cast(f.day as date) - 1
group by all
