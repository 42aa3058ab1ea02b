"""stub"""
def resolve_services(name, directory, faults):
    return {}, ()
