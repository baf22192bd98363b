-- Days of visits, visits that end before they begin, and visits by place of service.
insert into spread
select * exclude (inside)
from (
    select
        213, visit_concept_id, null, date_diff('day', visit_start_date, visit_end_date), count(*),
        visit_start_date >= seen.start_date and coalesce(visit_end_date, visit_start_date) <= seen.end_date as inside
    from visit_occurrence
    join observed as seen using (person_id)
    group by all
)
where inside;

insert into counted
select 211, null, null, null, null, count(*) from visit_occurrence where visit_end_date < visit_start_date
union all
select 1201, care_site.place_of_service_concept_id, null, null, null, count(visit.visit_occurrence_id)
from visit_occurrence as visit
join care_site using (care_site_id)
where care_site.place_of_service_concept_id is not null
group by all;
