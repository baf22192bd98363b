-- How many days the eras of a concept last.
insert into described
select the_number + 7, the_concept, null, summary_of(date_diff('day', the_date, the_end))
from the_table as event
join observation_period as seen
    on seen.person_id = event.person_id
    and the_date between seen.observation_period_start_date and seen.observation_period_end_date
group by the_concept;
