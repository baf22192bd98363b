-- Persons and events that meet the first n inclusion rules. As in ATLAS, each person's event that meets the most rules
-- counts. Runs on this machine, over the temporary tables of Circe's SQL: qualified_events and inclusion_events.
with ordered as (
    select
        person_id, event_id, inclusion_rule_id,
        row_number() over (partition by person_id, event_id order by inclusion_rule_id) - 1 as place
    from (select distinct person_id, event_id, inclusion_rule_id from inclusion_events) as met
),
met as (
    select
        person_id, event_id, count(*) as rules, min(inclusion_rule_id) as first_rule,
        count(*) filter (inclusion_rule_id = place) as in_order
    from ordered
    group by person_id, event_id
),
event as (
    select
        coalesce(m.in_order, 0) as in_order,
        row_number() over (
            partition by q.person_id
            order by coalesce(m.rules, 0) desc, coalesce(m.first_rule, 0), q.start_date, q.event_id
        ) as place
    from qualified_events as q
    left join met as m on m.person_id = q.person_id and m.event_id = q.event_id
)
select s.step, count(e.place) filter (e.place = 1) as persons, count(e.place) as entries
from range(0, $rules + 1) as s(step)
left join event as e on e.in_order >= s.step
group by s.step
order by s.step
