"""The meshes of a running lab: which way the packets of each two members take, asked of both."""
