-- Days of visits.
select
    213 as analysis_id,
    event.visit_concept_id as stratum_1,
    date_diff('day', event.visit_start_date, event.visit_end_date) as value,
    count(*) as n
from visit_occurrence as event
join observation_period as seen
    on seen.person_id = event.person_id
    and event.visit_start_date >= seen.observation_period_start_date
    and coalesce(event.visit_end_date, event.visit_start_date) <= seen.observation_period_end_date
where event.visit_end_date is not null
group by event.visit_concept_id, date_diff('day', event.visit_start_date, event.visit_end_date)
