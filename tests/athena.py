"""A vocabulary as https://athena.ohdsi.org delivers it: the format is its, the few rows are made by hand."""

from __future__ import annotations

from pathlib import Path

# A download in Athena's format: tabs, no quoting (the name of concept 2 would break it), days without dashes.
STANDARD = "S"
CONCEPT = [
    # id, name, domain, vocabulary, class, standard, code
    (1, "Unspecified essential hypertension", "Condition", "ICD9CM", "5-dig billing code", "", "401.9"),
    (2, 'History of tobacco use, "quit"; the patient\'s', "Observation", "ICD9CM", "5-dig", "", "V15.82"),
    (3, "Type 1 diabetes with ketoacidosis", "Condition", "ICD9CM", "5-dig billing code", "", "250.11"),
    (4, "Insertion of endotracheal tube", "Procedure", "ICD9Proc", "4-dig billing code", "", "96.04"),
    (5, "Critical care, first hour", "Observation", "CPT4", "CPT4", STANDARD, "99291"),
    (6, "Sodium chloride 0.9 % injection", "Drug", "NDC", "11-digit NDC", "", "00338004904"),
    (7, "Blood glucose test strip", "Device", "NDC", "11-digit NDC", "", "00193370701"),
    (8, "Sodium [Moles/volume] in Serum", "Measurement", "LOINC", "Lab Test", STANDARD, "2951-2"),
    (9, "An ICD-9 code that maps to nothing", "Condition", "ICD9CM", "5-dig billing code", "", "799.9"),
    (320128, "Essential hypertension", "Condition", "SNOMED", "Disorder", STANDARD, "59621000"),
    (4144272, "Former smoker", "Observation", "SNOMED", "Clinical Finding", STANDARD, "8517006"),
    (201254, "Type 1 diabetes mellitus", "Condition", "SNOMED", "Disorder", STANDARD, "46635009"),
    (443727, "Diabetic ketoacidosis", "Condition", "SNOMED", "Disorder", STANDARD, "420422005"),
    (4202832, "Intubation", "Procedure", "SNOMED", "Procedure", STANDARD, "52765003"),
    (40220357, "Sodium chloride 9 MG/ML", "Drug", "RxNorm", "Clinical Drug Comp", STANDARD, "313002"),
    (967823, "sodium chloride", "Drug", "RxNorm", "Ingredient", STANDARD, "9863"),
    (45768001, "Test strip", "Device", "SNOMED", "Physical Object", STANDARD, "337388004"),
    (3016723, "Creatinine, the old concept", "Measurement", "LOINC", "Lab Test", "", "2160-0"),
    (44819096, "OMOP Standardized Vocabularies", "Metadata", "Vocabulary", "Vocabulary", STANDARD, "OMOP generated"),
    (9999999, "Creatinine, its successor", "Measurement", "LOINC", "Lab Test", STANDARD, "99999-9"),
]
MAPS = [(1, 320128), (2, 4144272), (3, 201254), (3, 443727), (4, 4202832), (5, 5), (6, 40220357), (7, 45768001),
        (8, 8), (3016723, 9999999)]  # fmt: skip
ANCESTORS = [(967823, 40220357), (967823, 967823), (40220357, 40220357)]


def write(folder: Path, name: str, header: str, rows: list[tuple]) -> None:
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def download(folder: Path) -> Path:
    """Write the files of a download into a folder."""
    days = ("19700101", "20991231", "")
    write(
        folder,
        "CONCEPT.csv",
        "concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\tconcept_code\t"
        "valid_start_date\tvalid_end_date\tinvalid_reason",
        [(*concept, *days) for concept in CONCEPT],
    )
    write(
        folder,
        "CONCEPT_RELATIONSHIP.csv",
        "concept_id_1\tconcept_id_2\trelationship_id\tvalid_start_date\tvalid_end_date\tinvalid_reason",
        [(a, b, "Maps to", *days) for a, b in MAPS]
        + [(b, a, "Mapped from", *days) for a, b in MAPS]
        + [(1, 201254, "Maps to", "19700101", "20100101", "D")],
    )
    write(
        folder,
        "VOCABULARY.csv",
        "vocabulary_id\tvocabulary_name\tvocabulary_reference\tvocabulary_version\tvocabulary_concept_id",
        [
            (name, "OMOP Standardized Vocabularies", "Omop generated", "v5.0 31-AUG-26", 44819096)
            for name in dict.fromkeys(("None", *(concept[3] for concept in CONCEPT)))
        ],
    )
    write(
        folder,
        "CONCEPT_ANCESTOR.csv",
        "ancestor_concept_id\tdescendant_concept_id\tmin_levels_of_separation\tmax_levels_of_separation",
        [(a, b, 0, 1) for a, b in ANCESTORS],
    )
    return folder
