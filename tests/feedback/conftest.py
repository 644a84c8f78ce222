import pytest

from tests.feedback.project import Project, pair

PEOPLE = {"Ada": "annotator", "Ben": "annotator", "Cleo": "annotator", "Judge": "adjudicator"}


@pytest.fixture
def make_project(tmp_path):
    """`make_project([items], share of items for two)`; closed with the test."""
    made = []

    def make(items=None, double_share=0.0, people=PEOPLE, **settings):
        items = [pair(n) for n in range(4)] if items is None else items
        project = Project(tmp_path, items, people, double_share=double_share, **settings)
        made.append(project)
        return project

    yield make
    for project in made:
        project.connection.close()
