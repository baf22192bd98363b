-- How long visits last, how many end before they begin, and in what kinds of places they are.
insert into described
select 213, visit_concept_id, null, summary_of(date_diff('day', visit_start_date, visit_end_date))
from visit_occurrence as event
join observation_period as seen
    on seen.person_id = event.person_id
    and event.visit_start_date >= seen.observation_period_start_date
    and coalesce(event.visit_end_date, event.visit_start_date) <= seen.observation_period_end_date
group by visit_concept_id
having count(visit_end_date) > 0;

insert into counted
select 211, null, null, null, null, count(*) from visit_occurrence where visit_end_date < visit_start_date
union all
select 1201, care_site.place_of_service_concept_id, null, null, null, count(visit.visit_occurrence_id)
from visit_occurrence as visit
join care_site using (care_site_id)
where care_site.place_of_service_concept_id is not null
group by all;
