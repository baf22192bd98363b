-- Everyone's observation periods, sex and birth.
select
    p.person_id, p.gender_concept_id, p.year_of_birth, p.month_of_birth, p.day_of_birth,
    o.observation_period_start_date, o.observation_period_end_date
from person as p
join observation_period as o on o.person_id = p.person_id
