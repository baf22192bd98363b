-- Days of the eras of a concept.
insert into spread
select * exclude (inside)
from (
    select
        the_number + 7, the_concept, null, date_diff('day', the_date, the_end), count(*),
        the_date between seen.start_date and seen.end_date as inside
    from the_table as event
    join observed as seen using (person_id)
    group by all
)
where inside;
