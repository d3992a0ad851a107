from sphemb._files import written_whole as written_whole
