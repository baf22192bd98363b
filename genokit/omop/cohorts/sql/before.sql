-- How many persons of each cohort had a concept recorded in the days before they entered it. Runs here, over tables of
-- this program: first (when each person of a cohort enters it) and record.
select f.cohort, r.domain as characteristic, r.concept_id, count(distinct r.person_id) as persons
from record as r
join first as f
    on f.person_id = r.person_id and r.start_date between cast(f.day as date) - $days and cast(f.day as date) - 1
group by all
